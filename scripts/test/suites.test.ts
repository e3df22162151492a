// SPDX-License-Identifier: Apache-2.0
import assert from 'node:assert/strict'
import { mkdirSync, mkdtempSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { dirname, join } from 'node:path'
import { test } from 'node:test'
import { choose, plan } from './suites.ts'

const FILES = [
  'src/base/ip.test.ts',
  'test/architecture.test.ts',
  'test/contract/neutron.test.ts',
  'test/host/pod-link.test.ts',
  'test/kubernetes/kubelet.test.ts',
  'test/veth-route.test.ts',
]

function planOfFiles() {
  const root = mkdtempSync(join(tmpdir(), 'suites-'))
  try {
    for (const file of FILES) {
      mkdirSync(join(root, dirname(file)), { recursive: true })
      writeFileSync(join(root, file), '')
    }
    return plan(root)
  } finally {
    rmSync(root, { recursive: true })
  }
}

const told = (chosen: ReturnType<typeof choose>) =>
  chosen.map(({ suite, files }) => `${suite.name}: ${files.join(' ')}`)

test('choose() without words takes what needs no lab', () => {
  assert.deepEqual(told(choose(planOfFiles(), [], false)), [
    'unit: test/architecture.test.ts src/base/ip.test.ts',
    'black box, alone: test/host/pod-link.test.ts',
    'black box, side by side: test/veth-route.test.ts test/contract/neutron.test.ts',
  ])
})

test('choose() with all takes every file once, and some again in their second setting', () => {
  assert.deepEqual(told(choose(planOfFiles(), [], true)), [
    'unit: test/architecture.test.ts src/base/ip.test.ts',
    'black box, alone: test/host/pod-link.test.ts',
    'black box, side by side: test/veth-route.test.ts test/contract/neutron.test.ts',
    'under a Debian kernel: test/veth-route.test.ts',
    'contract of the real OpenStack: test/contract/neutron.test.ts',
    'kubelet: test/kubernetes/kubelet.test.ts',
  ])
})

test('choose() takes a word for a part of a path', () => {
  assert.deepEqual(told(choose(planOfFiles(), ['contract'], false)), [
    'black box, side by side: test/contract/neutron.test.ts',
  ])
})

test('choose() takes a file that only runs with a lab when it is named', () => {
  assert.deepEqual(told(choose(planOfFiles(), ['kubelet.test.ts'], false)), [
    'kubelet: test/kubernetes/kubelet.test.ts',
  ])
})
