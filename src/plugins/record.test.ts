// SPDX-License-Identifier: Apache-2.0
import assert from 'node:assert/strict'
import { test } from 'node:test'
import { deadlineIn } from '#base'
import type { Call } from '#cni'
import { callOf, keyOf, recordOf, withoutSecrets } from './record.ts'

test('withoutSecrets() leaves out secrets at any depth, and what only the moment knew', () => {
  const config = {
    name: 'n',
    prevResult: {},
    runtimeConfig: {},
    ipam: { openstackConf: { username: 'u', Password: 'p', applicationCredentialSecret: 's' }, list: [{ token: 't' }] },
  }
  assert.deepEqual(withoutSecrets(config), { name: 'n', ipam: { openstackConf: { username: 'u' }, list: [{}] } })
})

test('callOf() makes the DEL of a recorded ADD', () => {
  const config = { name: 'cni0', cniVersion: '1.0.0', type: 'veth-route', ipam: { type: 'host-local' } }
  const add: Call = {
    command: 'ADD',
    containerId: 'c1',
    ifName: 'eth0',
    netns: '/run/netns/x',
    netnsFd: undefined,
    args: 'K8S_POD_NAME=p',
    path: ['/opt/cni/bin', '/usr/lib/cni'],
    stdin: new TextEncoder().encode(JSON.stringify(config)),
    config,
    network: 'cni0',
    cniVersion: '1.0.0',
    prevResult: undefined,
    env: {},
    deadline: deadlineIn(1000),
    signal: new AbortController().signal,
  }
  const record = {
    ...keyOf(add, 'veth-route'),
    ...recordOf(add, 'boot'),
    state: 'ready' as const,
    traces: '',
    result: '',
    changedMs: 0,
  }
  const del = callOf(record, 'DEL')
  assert.deepEqual(JSON.parse(new TextDecoder().decode(del.stdin)), config)
  assert.equal(del.env['CNI_COMMAND'], 'DEL')
  assert.equal(del.env['CNI_PATH'], '/opt/cni/bin:/usr/lib/cni')
  assert.equal(del.env['CNI_ARGS'], 'K8S_POD_NAME=p')
  assert.deepEqual([del.containerId, del.ifName, del.netns, del.network], ['c1', 'eth0', '', 'cni0'])
})
