"""The steps. A step that has been released is never edited; a new one is added."""
