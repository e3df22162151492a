// SPDX-License-Identifier: Apache-2.0

import assert from 'node:assert/strict'
import { test } from 'node:test'
import { parseIp, parsePrefix } from '#base'
import { NetlinkError, type Request } from '#netlink'
import { addPod, checkPod, findForeignForwardDrop, removePod } from './firewall.ts'

const pod = {
  link: 'mv1',
  addresses: [parseIp('10.99.0.2')],
  masquerade: [parsePrefix('10.99.0.2/16'), parsePrefix('10.99.0.2/32')],
}

/** A kernel that answers nothing, and refuses what `refuse` names with an errno. */
function fakeKernel(refuse: (request: Request) => number | undefined = () => undefined) {
  const sent: string[][] = []
  const execute = (requests: readonly Request[]) => {
    sent.push(requests.slice(1, -1).map(request => request.about.replace(/ inet mooring/, '')))
    for (const request of requests) {
      const errno = refuse(request)
      if (errno !== undefined) throw new NetlinkError(request.about, errno)
    }
    return requests.map(() => ({ messages: [], tolerated: undefined }))
  }
  return { sent, execute }
}

test('addPod: one batch, one element per set; a network of one address needs none', () => {
  const kernel = fakeKernel()
  assert.equal(addPod(kernel, pod), false)
  assert.deepEqual(kernel.sent, [
    [
      'add element mv1 of set pod_links',
      'add element mv1 . 10.99.0.2 of set pod_addresses_v4',
      'add element mv1 . 10.99.0.2 of set masquerade_v4',
      'add element mv1 . 10.99.0.0 of set inside_16_v4',
    ],
  ])
})

test('addPod: what is refused for another reason than absence is not tried again', () => {
  const kernel = fakeKernel(request => (request.about.includes('masquerade_v4') ? 16 : undefined))
  assert.throws(() => addPod(kernel, pod), /add element mv1 \. 10\.99\.0\.2 of set inet mooring masquerade_v4: .*EBUSY/)
  assert.equal(kernel.sent.length, 1)
})

test('removePod: one batch; one per element only where the kernel wants it so', () => {
  const plain = fakeKernel()
  removePod(plain, pod)
  assert.equal(plain.sent.length, 1)

  const NFT_MSG_DESTROYSETELEM = 0x0a1e
  const old = fakeKernel(request => (request.type === NFT_MSG_DESTROYSETELEM ? 22 : undefined))
  removePod(old, pod)
  assert.deepEqual(
    old.sent.map(batch => batch.length),
    [4, 1, 1, 1, 1],
  )
})

test('removePod: absence is success, a missing permission is not', () => {
  removePod(
    fakeKernel(() => 2),
    pod,
  )
  assert.throws(
    () =>
      removePod(
        fakeKernel(() => 1),
        pod,
      ),
    /EPERM/,
  )
})

test('checkPod: without the rules the elements are not enough', () => {
  assert.deepEqual(checkPod(fakeKernel(), pod), [
    'the rules of chain inet mooring prerouting are not there',
    'the rules of chain inet mooring outside_v4 are not there',
    'the rules of chain inet mooring outside_v6 are not there',
    'the rules of chain inet mooring postrouting are not there',
  ])
})

test('findForeignForwardDrop: silent on an empty rule set', () => {
  assert.deepEqual(findForeignForwardDrop(fakeKernel()), [])
})
