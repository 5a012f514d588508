"""The HTTP API and the browser page: one worker for the device, a bounded queue before it, thin routes around both."""
