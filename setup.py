"""What there is to say stands in setup.cfg; this file is for the tools that still look for it."""

from setuptools import setup

setup()
