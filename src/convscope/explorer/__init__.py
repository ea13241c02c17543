"""The explorer: a local page on which every layer, unit, class and picture of a network has an address.

``convscope explore`` starts it. The server knows the registry and the views, never a technique by name.
"""
