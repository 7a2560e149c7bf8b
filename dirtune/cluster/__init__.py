"""A Ray cluster seen from outside of a sweep: is it fit for one, and how does a study get there?"""
