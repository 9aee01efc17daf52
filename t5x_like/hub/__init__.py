"""Hugging Face import and export, one key table a family."""
