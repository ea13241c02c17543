"""Which picture would excite, match or fool it?"""
