"""Files of several functions, as Apple's runtimes load them: a stem and one function for each bucket, or `main`."""
