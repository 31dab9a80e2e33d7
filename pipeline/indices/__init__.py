"""Line indices, one module per family; pipeline/index.py is their contract."""
