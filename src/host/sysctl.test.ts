// SPDX-License-Identifier: Apache-2.0

import assert from 'node:assert/strict'
import { test } from 'node:test'
import { ensureSysctl, tryReadSysctl } from './sysctl.ts'

test('tryReadSysctl: reads a setting, and undefined where the kernel has none', () => {
  assert.match(tryReadSysctl('ipv4', 'ip_forward') ?? '', /^[01]$/)
  assert.equal(tryReadSysctl('ipv4', 'no_such_setting'), undefined)
})

test('ensureSysctl: writes nothing where the value is right, so that it needs no rights', () => {
  assert.equal(ensureSysctl(tryReadSysctl('ipv4', 'ip_forward')!, 'ipv4', 'ip_forward'), true)
  assert.equal(ensureSysctl('1', 'ipv4', 'no_such_setting'), false)
})
