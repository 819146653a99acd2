"""What `calibrate` prints, and its work on plain ViTs."""
