// SPDX-License-Identifier: Apache-2.0

import assert from 'node:assert/strict'
import { test } from 'node:test'
import { SystemError } from '#libc'
import { NetlinkError } from '#netlink'
import { NftablesError } from '#nftables'
import { packError, reviveError } from './wire-error.ts'

const carried = (error: unknown) => reviveError(structuredClone(packError(error)))

test('reviveError: class, message and fields survive the way between threads', () => {
  const error = carried(new NetlinkError('add route 10.0.0.0/8', 17, 'it is there', 36))
  assert.ok(error instanceof NetlinkError)
  assert.equal(error.message, 'Cannot add route 10.0.0.0/8: it is there: file already exists (EEXIST)')
  assert.deepEqual(
    [error.name, error.errno, error.code, error.request, error.extack, error.offset],
    ['NetlinkError', 17, 'EEXIST', 'add route 10.0.0.0/8', 'it is there', 36],
  )
})

test('reviveError: tells subclasses apart', () => {
  const cause = new NetlinkError('add element veth1', 2)
  const firewall = carried(new NftablesError(cause, 'element veth1'))
  assert.ok(firewall instanceof NftablesError && firewall instanceof NetlinkError)
  assert.equal(firewall.object, 'element veth1')
  const system = carried(new SystemError('setns', 1, 'enter'))
  assert.ok(system instanceof SystemError && !(system instanceof NetlinkError))
  assert.equal(system.syscall, 'setns')
})

test('reviveError: an error on the way back keeps the one that it came after', () => {
  const both = carried(
    new SuppressedError(new NetlinkError('remove link 3', 1), new NetlinkError('add link veth1', 12)),
  )
  assert.ok(both instanceof SuppressedError)
  assert.ok(both.error instanceof NetlinkError && both.suppressed instanceof NetlinkError)
  assert.deepEqual([both.error.errno, both.suppressed.errno], [1, 12])
})

test('reviveError: makes an error of whatever was thrown', () => {
  assert.equal(carried(new RangeError('too far')).message, 'too far')
  assert.equal(carried('a text').message, 'a text')
})
