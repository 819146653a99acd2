"""Core ML on a Mac and on an iPhone. What `project.CARRIED` lists imports only numpy, coremltools and itself."""
