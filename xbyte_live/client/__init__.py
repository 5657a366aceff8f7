"""The paying side; imports without a media library, a web server or a database."""
