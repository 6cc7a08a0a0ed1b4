"""File access shared by several programs: atomic directories, strict documents."""
