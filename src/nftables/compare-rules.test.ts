// SPDX-License-Identifier: Apache-2.0

import assert from 'node:assert/strict'
import { test } from 'node:test'
import { isSameRule } from './compare-rules.ts'
import { count } from './expressions/counter.ts'
import type { Expression } from './expressions/expression.ts'
import { give } from './expressions/immediate.ts'
import { isIn, isNotIn } from './expressions/lookup.ts'
import { loadMeta } from './expressions/meta.ts'
import { translate } from './expressions/nat.ts'

const rule = (...expressions: Expression[]) => ({ expressions })

test('isSameRule: what a kernel adds by itself is no difference', () => {
  const counted: Expression = { kind: 'counter', data: { bytes: 840n, packets: 10n } }
  const described: Expression = { kind: 'lookup', data: { register: 1, set: 'pods', flags: 0 } }
  assert.ok(isSameRule(rule(described, counted), rule(isIn(8, 'pods'), count())))
  const translated: Expression = {
    kind: 'nat',
    data: { type: 1, family: 2, address: 1, addressMax: 1, port: 9, portMax: 9, flags: 3 },
  }
  assert.ok(isSameRule(rule(translated), rule(translate('dnat', 'ip', { address: 8, port: 9 }))))
})

test('isSameRule: another verdict, set, register, order or length is one', () => {
  const wanted = rule(loadMeta('iifname', 1), isIn(1, 'pods'), give('accept'))
  for (const [what, found] of Object.entries({
    verdict: rule(loadMeta('iifname', 1), isIn(1, 'pods'), give('drop')),
    chain: rule(loadMeta('iifname', 1), isIn(1, 'pods'), give({ jump: 'other' })),
    set: rule(loadMeta('iifname', 1), isIn(1, 'others'), give('accept')),
    negation: rule(loadMeta('iifname', 1), isNotIn(1, 'pods'), give('accept')),
    register: rule(loadMeta('iifname', 2), isIn(1, 'pods'), give('accept')),
    key: rule(loadMeta('oifname', 1), isIn(1, 'pods'), give('accept')),
    order: rule(isIn(1, 'pods'), loadMeta('iifname', 1), give('accept')),
    more: rule(...wanted.expressions, count()),
    unknown: rule(loadMeta('iifname', 1), { kind: 'xt' }, give('accept')),
  }))
    assert.equal(isSameRule(found, wanted), false, what)
})
