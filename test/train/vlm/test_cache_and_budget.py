"""The cache of replies and the budget, used by several threads."""

from concurrent.futures import ThreadPoolExecutor

import pytest

from instructsam.core.errors import InstructSAMError
from instructsam.train.vlm.budget import Budget, BudgetSettings, BudgetSpent, Spending
from instructsam.train.vlm.cache import ReplyCache, request_hash
from instructsam.train.vlm.spending import SpendingFile


def test_a_cache_outlives_its_process_and_serves_threads(tmp_path):
    cache = ReplyCache(tmp_path / 'new' / 'cache.sqlite')
    with ThreadPoolExecutor(8) as pool:
        list(pool.map(lambda number: cache.put(str(number % 50), {'text': f'{number % 50}'}), range(400)))
    cache.put('1', {'text': 'another'})
    assert len(cache) == 50
    cache.close()
    again = ReplyCache(tmp_path / 'new' / 'cache.sqlite')
    assert again.get('1') == {'text': '1'}
    assert again.get('unknown') is None


def test_the_hash_depends_on_all_of_a_request():
    request = {'model': 'a', 'messages': [{'role': 'user', 'content': 'x'}], 'seed': 0}
    others = [{**request, 'model': 'b'}, {**request, 'seed': 1}, {**request, 'messages': []}]
    assert len({request_hash(each) for each in (request, *others)}) == 4
    assert request_hash(dict(reversed(request.items()))) == request_hash(request)


def test_a_file_that_is_no_cache(tmp_path):
    (tmp_path / 'cache').write_bytes(b'no database ' * 100)
    with pytest.raises(InstructSAMError, match='cache is not a cache of replies'):
        ReplyCache(tmp_path / 'cache')
    with pytest.raises(InstructSAMError, match='is not a regular file'):
        ReplyCache(tmp_path)


def test_no_thread_makes_a_call_too_many():
    budget = Budget(BudgetSettings(calls=100))

    def take(_):
        try:
            budget.take_call()
        except BudgetSpent:
            return 0
        return 1

    with ThreadPoolExecutor(8) as pool:
        assert sum(pool.map(take, range(300))) == 100


def test_tokens_and_money_end_a_run():
    budget = Budget(BudgetSettings(tokens=100))
    budget.take_call()
    budget.add(60, 40)
    with pytest.raises(BudgetSpent, match='budget of 100 tokens'):
        budget.take_call()
    prices = BudgetSettings(money=1.0, prompt_price=2.0, completion_price=10.0)
    budget = Budget(prices, Spending(5, 250_000, 40_000))
    budget.take_call()
    assert budget.money == pytest.approx(0.9)
    budget.add(0, 10_000)
    with pytest.raises(BudgetSpent, match='budget of 1 in money'):
        budget.take_call()
    with pytest.raises(ValueError, match='needs prompt_price'):
        BudgetSettings(money=1.0)


def test_seconds_end_a_run_over_all_of_its_parts():
    now = [100.0]
    budget = Budget(BudgetSettings(seconds=10), Spending(seconds=4), clock=lambda: now[0])
    now[0] += 5.9
    budget.take_call()
    assert budget.spent == Spending(calls=1, seconds=9.9)
    now[0] += 0.1
    with pytest.raises(BudgetSpent, match='budget of 10 seconds'):
        budget.take_call()


def test_spending_is_remembered(tmp_path):
    file = SpendingFile(tmp_path / 'spending.json')
    budget = Budget(spent=file.read())
    file.save(budget, now=True)
    assert not file.path.exists()  # Nothing was spent.
    budget.take_call()
    file.save(budget, now=True)
    budget.add(7, 3)
    file.save(budget)  # too soon
    assert SpendingFile(file.path).read().tokens == 0
    file.save(budget, now=True)
    assert SpendingFile(file.path).read().tokens == 10
    for text in ('[]', '{"calls": "x"}', '{"call": 1}', '{'):
        file.path.write_text(text)
        with pytest.raises(InstructSAMError, match='is damaged'):
            file.read()
