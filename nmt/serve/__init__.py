"""``nmt serve``: an HTTP server with LibreTranslate's interface, and a page."""
