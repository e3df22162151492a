// SPDX-License-Identifier: Apache-2.0

import assert from 'node:assert/strict'
import { test } from 'node:test'
import { memoryJournal, putAttachment } from '#allocator'
import { openTarget } from './target.ts'

test('openTarget: a container without a namespace has its own attachments alone', () => {
  using journal = memoryJournal()
  for (const containerId of ['aaaa0000', 'bbbb0000'])
    putAttachment(journal, {
      ...{ network: 'n', containerId, ifName: 'eth0', type: 'veth-route', state: 'deleting', bootId: 'b' },
      ...{ netns: '/run/netns/none', netnsDevice: undefined, netnsInode: undefined, config: '{}', traces: '{}' },
    })
  using target = openTarget('aaaa', journal)
  assert.deepEqual(
    target.attachments.map(each => each.containerId),
    ['aaaa0000'],
  )
})
