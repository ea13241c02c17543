"""Networks that paint a picture in one pass: what they are, how they are trained, kept in files and run.

    stylist = read_stylist(find("starry-night"))     # shipped, or a FILE that `convscope train-style` wrote
    painted = stylist(images)                        # (N, 3, H, W) in [0, 1], at any size

A picture that ``optimize`` would paint in hundreds of steps, one network of some 300,000 weights paints in one
(Johnson et al. 2016), since it was trained on many photographs to do what the optimisation does.
"""
