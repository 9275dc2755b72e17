"""The version that `info`, labels and the image carry."""

VERSION = "0.1.0"
