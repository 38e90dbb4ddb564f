"""What each page shows: values for its template, read through a `CatalogView`."""
