"""The families that are known: one file for each training code, and those that are recognised to be refused."""
