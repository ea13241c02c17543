"""What a network does over a whole data set: questions on an index."""
