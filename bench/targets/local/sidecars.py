"""tmp"""
class Sidecars:
    def __init__(self,*a): raise NotImplementedError
