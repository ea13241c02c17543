"""What people and networks answer to the same pictures, and how alike their answers are.

``responses`` reads and writes the usual table of answers, ``categories`` turns a network's scores into a choice among
few names, ``scoring`` compares, ``conflict`` counts shape against texture, and ``study`` asks a person.
"""
