"""Files that several programs share: directories written atomically, documents read strictly."""
