"""Engines that carry the bytes of a run between organisations."""
