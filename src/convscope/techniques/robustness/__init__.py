"""When does it fail?"""
