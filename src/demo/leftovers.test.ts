// SPDX-License-Identifier: Apache-2.0
import assert from 'node:assert/strict'
import { test } from 'node:test'
import { containerIdOf } from '#cnitool'
import { kernelLeftovers } from './leftovers.ts'
import type { State } from './state.ts'

const netns = '/run/netns/demo-pod-1'
const stateOf = (cloud: string | undefined): State => ({
  kept: false,
  cloud,
  cloudsFile: undefined,
  machines: [],
  namespaces: [],
  pods: [{ name: 'pod-1', netns, machine: 'worker-1' }],
  floatingIps: [],
  processes: [],
})
const kernels = (...lines: string[]) => new Map([['worker-1', ['link eth0', ...lines]]])
const link = `link vethab (mooring veth-route cni0 ${containerIdOf(netns)} eth0)`

test('kernelLeftovers finds nothing where everything is as before', () => {
  const at = { before: kernels(), during: kernels(link), after: kernels() }
  assert.deepEqual(kernelLeftovers(stateOf(undefined), at, ['10.0.0.7']), [])
})

test('kernelLeftovers on machines of its own finds whatever is new, but not the next hop of all pods', () => {
  const after = kernels(
    'rule 5 table 9',
    'link dummy0',
    'address 169.254.1.1/32 dev dummy0',
    'route fe80::1/128 dev eth0',
  )
  const found = kernelLeftovers(stateOf(undefined), { before: kernels(), during: kernels(), after }, [])
  assert.deepEqual(found, ['worker-1, kernel: rule 5 table 9'])
})

test('kernelLeftovers on machines of others finds what mentions a pod, its address or its link', () => {
  const own = [link, 'route 10.0.0.7/32 dev vethab table 254', 'proxy 10.0.0.7 dev eth0', 'firewall vethab 10.0.0.7']
  const at = {
    before: kernels(),
    during: kernels(link),
    after: kernels(...own, 'proxy 10.0.0.70 dev eth0', 'link vethcd'),
  }
  const found = kernelLeftovers(stateOf('real'), at, ['10.0.0.7'])
  assert.deepEqual(
    found,
    own.map(line => `worker-1, kernel: ${line}`),
  )
})
