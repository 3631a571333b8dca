"""Referring expressions on COCO's images: refs beside an instances.json, or converted to lists of texts and masks."""

from functools import cache

from instructsam.core.errors import DataError
from instructsam.train.data.record_fields import RecordError, read_mask
from instructsam.train.evaluation.readers.documents import read_json
from instructsam.train.evaluation.readers.records import (
    ask,
    failed,
    image_of,
    read_size,
    read_targets,
    text_of,
    visible,
)

NOTHING = -1  # annotation id of a ref without a target


def of_refs(request, path, refs, identify):
    """Asks each sentence of the split's refs (dicts); the truth has a mask for each annotation of a ref.

    identify(ref, sentence): a Query's id. A ref that does not say its split fails in each. Raises DataError.
    """
    splits = {text_of(ref, 'split') for ref in refs}
    if request.split not in splits:
        raise request.no_split(sorted(splits - {''}))
    images, annotations = _instances(path.with_name('instances.json'))
    kept = [
        (number, ref, _entry(images, ref.get('image_id')) or {})
        for number, ref in enumerate(refs)
        if text_of(ref, 'split') in (request.split, '')
    ]
    pictures = request.pictures([text_of(entry, 'file_name') for _, _, entry in kept], path.parent)

    @cache
    def mask(id, image_id):  # of many sentences
        annotation = _entry(annotations, id)
        if annotation is None or annotation.get('image_id') != image_id:
            raise RecordError(f'instances.json has no annotation {id!r} of the image {image_id!r}')
        return visible(read_mask(annotation.get('segmentation'), *read_size(images[image_id])))

    for number, ref, entry in kept:
        where, image = f'{path}, record {number}', image_of(entry, 'file_name', pictures)
        sentences = ref.get('sentences')
        if not text_of(ref, 'split') or not isinstance(sentences, list) or not sentences:
            yield failed(where, f'ref {number}', image, 'a ref has a split and a list of sentences')
            continue

        def masks():
            return {'truth': tuple(mask(id, entry['id']) for id in _targets(ref))}

        for index, sentence in enumerate(sentences):
            sentence = sentence if isinstance(sentence, dict) else {}
            id = identify(ref, sentence) if 'sent_id' in sentence else f'ref {number}-{index}'
            key = 'sent' if 'sent' in sentence else 'raw'
            yield ask(f'{where}, sentence {index}', id, image, sentence, key, masks)


def _instances(path):
    """Images and annotations of a COCO file by their ids."""
    if not path.is_file():
        raise DataError(f'there is no {path}, which has the masks. Put it there: it comes with the expressions')
    content = read_json(path)
    try:
        return tuple({entry['id']: entry for entry in content[name]} for name in ('images', 'annotations'))
    except (KeyError, TypeError) as error:
        raise DataError(f'{path} has no images and annotations with ids, as COCO has them: {error!r}') from error


def _entry(entries, id):
    return entries.get(id) if isinstance(id, int) else None


def _targets(ref):
    """Annotation ids of a ref, none if it has no target."""
    ids = ref.get('ann_id')
    ids = ids if isinstance(ids, list) else [ids]
    if not ids or not all(isinstance(id, int) for id in ids):
        raise RecordError(f'ann_id is the number of an annotation, or a list of them, got {str(ids)[:60]}')
    return [id for id in ids if id != NOTHING]


def of_categories(request, path, records):
    """Asks each text in `cat` of converted records; the masks of cat[i] are masks[i]: one, a list, or none."""
    pictures = request.pictures([text_of(record, 'image') for record in records], path.parent)
    for number, record in enumerate(records):
        where, image, texts = f'{path}, record {number}', image_of(record, 'image', pictures), record.get('cat')
        if not isinstance(texts, list) or not texts:
            yield failed(where, str(number), image, 'a record has a list of texts under cat')
            continue
        for index, text in enumerate(texts):

            def masks():
                each = record.get('masks')
                if not isinstance(each, list) or len(each) != len(texts):
                    raise RecordError(f'a record has masks for each of its {len(texts)} texts, got {str(each)[:60]}')
                return {'truth': read_targets(each[index], read_size(record))}

            yield ask(f'{where}, text {index}', f'{number}-{index}', image, {'cat': text}, 'cat', masks)
