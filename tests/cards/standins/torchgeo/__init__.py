"""What a release must give TorchGeo.

TorchGeo itself needs torchvision, which not every machine can have. Where it is installed, it is used instead.
"""
