"""Stage images: the sources of a recipe as upright pictures, without blurred ones and near duplicates."""
