"""Readers: data sets in the forms people have them, listed as rows. No video is opened here."""
