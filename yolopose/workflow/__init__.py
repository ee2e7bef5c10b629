"""Stages, status, papermill and the command line. Imports no torch and reads results only as files."""
