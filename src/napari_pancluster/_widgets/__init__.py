"""The window: panels, scatter and jobs. Collects, calls and shows; computes nothing."""
