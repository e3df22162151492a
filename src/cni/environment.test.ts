// SPDX-License-Identifier: Apache-2.0
import assert from 'node:assert/strict'
import { test } from 'node:test'
import { checkIfName, checkNetworkName, parseCniArgs, readAttachment, readEnvironment } from './environment.ts'

const sound = {
  CNI_COMMAND: 'ADD',
  CNI_CONTAINERID: 'c-1',
  CNI_NETNS: '/run/netns/x',
  CNI_IFNAME: 'eth0',
  CNI_PATH: '/opt/cni/bin:/usr/lib/cni',
}

test('readEnvironment() reads every variable', () => {
  assert.deepEqual(readEnvironment({ ...sound, CNI_ARGS: 'A=B', CNI_NETNS_OVERRIDE: 'True' }), {
    command: 'ADD',
    containerId: 'c-1',
    netns: '/run/netns/x',
    ifName: 'eth0',
    args: 'A=B',
    path: ['/opt/cni/bin', '/usr/lib/cni'],
    netnsOverride: true,
  })
})

test('readAttachment() finds none in a GC, whatever its environment says', () => {
  assert.deepEqual(readAttachment(sound), { containerId: 'c-1', ifName: 'eth0' })
  assert.deepEqual(readAttachment({ ...sound, CNI_COMMAND: 'GC' }), { containerId: '', ifName: '' })
})

test('readEnvironment() lists all that are missing, in order', () => {
  assert.throws(() => readEnvironment({ CNI_COMMAND: 'ADD' }), {
    code: 4,
    message: 'required env variables [CNI_CONTAINERID,CNI_NETNS,CNI_IFNAME,CNI_PATH] missing',
  })
  assert.throws(() => readEnvironment({ ...sound, CNI_NETNS: '' }), { message: /\[CNI_NETNS\] missing/ })
})

test('readEnvironment() wants of each verb what the specification wants', () => {
  readEnvironment({ CNI_COMMAND: 'VERSION', CNI_CONTAINERID: '!!' })
  readEnvironment({ CNI_COMMAND: 'STATUS' })
  readEnvironment({ CNI_COMMAND: 'DEL', CNI_CONTAINERID: 'c', CNI_IFNAME: 'eth0' })
  assert.throws(() => readEnvironment({ CNI_COMMAND: 'GC' }), { message: /\[CNI_PATH\]/ })
  assert.throws(() => readEnvironment({ CNI_COMMAND: 'DEL' }), { message: /\[CNI_CONTAINERID,CNI_IFNAME\]/ })
  readEnvironment({ CNI_COMMAND: 'GC', CNI_PATH: '/x', CNI_IFNAME: 'a/b', CNI_CONTAINERID: '-' })
})

test('readEnvironment() refuses container ids with other characters', () => {
  for (const containerId of ['-a', '.a', 'a/b', 'a b', 'é', 'a\n', '_a'])
    assert.throws(() => readEnvironment({ ...sound, CNI_CONTAINERID: containerId }), {
      code: 4,
      message: 'invalid characters in containerID',
      details: containerId,
    })
  readEnvironment({ ...sound, CNI_CONTAINERID: `a${'b'.repeat(299)}` })
})

test('checkIfName() counts bytes and knows every white space', () => {
  checkIfName('a'.repeat(15))
  checkIfName('é'.repeat(7))
  for (const name of ['a'.repeat(16), 'é'.repeat(8)])
    assert.throws(() => checkIfName(name), { code: 4, message: /too long/ })
  for (const name of ['a/b', 'a:b', 'a b', 'a\tb', 'a\u00a0b', 'a\u2003b', 'a\u0085b'])
    assert.throws(() => checkIfName(name), { code: 4, message: /contains \/ or : or whitespace/ })
  for (const name of ['.', '..']) assert.throws(() => checkIfName(name), { message: 'interface name is . or ..' })
})

test('checkNetworkName() refuses with code 7', () => {
  assert.throws(() => checkNetworkName(''), { code: 7, message: 'missing network name' })
  assert.throws(() => checkNetworkName('a/b'), { code: 7, details: 'a/b' })
})

test('parseCniArgs() reads the keys that it is told', () => {
  assert.deepEqual(parseCniArgs('IP=10.0.0.2;GATEWAY=', ['IP', 'GATEWAY']), { IP: '10.0.0.2', GATEWAY: '' })
  assert.deepEqual(parseCniArgs('', ['IP']), {})
})

test('parseCniArgs() lets unknown keys pass only with IgnoreUnknown, wherever it stands', () => {
  const kubelet = 'K8S_POD_UID=1;IgnoreUnknown=1;K8S_POD_NAMESPACE=default;K8S_POD_NAME=x;K8S_POD_INFRA_CONTAINER_ID=7'
  assert.deepEqual(parseCniArgs(kubelet, ['K8S_POD_NAME']), { K8S_POD_NAME: 'x' })
  assert.deepEqual(parseCniArgs('FOO=1;IgnoreUnknown=TRUE', []), {})
  assert.throws(() => parseCniArgs('FOO=1;ip=2', ['IP']), { code: 4, message: /ARGS: unknown args \["FOO=1" "ip=2"\]/ })
  assert.throws(() => parseCniArgs('FOO=1;IgnoreUnknown=0', []), { message: /unknown args/ })
  assert.throws(() => parseCniArgs('IgnoreUnknown=yes', []), {
    message: /error parsing value of pair "IgnoreUnknown=yes"/,
  })
})

test('parseCniArgs() refuses a pair without exactly one =', () => {
  for (const args of ['A', 'A=B=C', ';', 'A=B;'])
    assert.throws(() => parseCniArgs(args, ['A']), { code: 4, message: /ARGS: invalid pair/ })
})
