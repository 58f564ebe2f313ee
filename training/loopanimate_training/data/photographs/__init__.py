"""Photographs taken apart: objects under a mask, cut out of photographs, over their own filled background."""
