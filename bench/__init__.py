"""meshbench: what does this service mesh, with these policies, cost this application?"""

__version__ = "0.1.0"
