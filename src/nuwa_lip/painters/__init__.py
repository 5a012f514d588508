"""What fills a window: NÜWA-LIP, and others' models behind the same protocol."""
