// SPDX-License-Identifier: Apache-2.0
// What the runtime passes in runtimeConfig and what plugins take from it: items CAP of the conformance list.
import assert from 'node:assert/strict'
import { suite, test } from 'node:test'
import { Bench, folder, missing, plugin, pod, resultOf } from './harness.ts'

const netns = '/run/netns/none'

/** The runtimeConfig that a plugin gets which declares `capabilities`, when the caller supplies `args`. */
async function passed(capabilities: object, args: object): Promise<unknown> {
  const bench = new Bench().list('n', '1.0.0', [{ type: 'p', capabilities }])
  bench.fakes.add('p')
  const outcome = await bench.cnitool(['add', 'n', netns], { CAP_ARGS: JSON.stringify(args) })
  assert.equal(outcome.rc, 0, outcome.stderr)
  return JSON.parse(bench.fakes.take()[0]!.stdin).runtimeConfig
}

const values: readonly [id: string, key: string, value: unknown][] = [
  ['CAP-02', 'portMappings', [{ hostPort: 8080, containerPort: 80, protocol: 'tcp', hostIP: '127.0.0.1' }]],
  [
    'CAP-03',
    'ipRanges',
    [[{ subnet: '10.1.0.0/24', rangeStart: '10.1.0.5', gateway: '10.1.0.1' }], [{ subnet: 'fd00::/64' }]],
  ],
  ['CAP-04', 'bandwidth', { ingressRate: 1, ingressBurst: 4294967295, egressRate: 3, egressBurst: 4 }],
  ['CAP-05', 'dns', { searches: ['x'], servers: ['10.0.0.1'], options: ['ndots:2'] }],
  ['CAP-06', 'ips', ['10.0.0.9', '10.0.0.8/24', 'fd00::9/64']],
  ['CAP-07', 'mac', '02:00:00:00:00:09'],
  ['CAP-07', 'infinibandGUID', 'c2:11:22:33:44:55:66:77'],
  ['CAP-07', 'deviceID', '0000:00:1f.6'],
  ['CAP-07', 'aliases', ['a', 'b']],
  ['CAP-07', 'cgroupPath', '/kubelet/x'],
  ['CAP-08', 'CNIDeviceInfoFile', '/run/k8s.cni.cncf.io/devinfo/x.json'],
]

suite('CAP capabilities, the runtime', { skip: missing, concurrency: 2 }, () => {
  test('CAP-01 only what was declared true and supplied is passed, no key where nothing is', async () => {
    const supplied = { ips: ['10.0.0.9'], mac: '02:00:00:00:00:01' }
    assert.equal(await passed({}, supplied), undefined)
    assert.deepEqual(await passed({ ips: true, mac: false, portMappings: true }, supplied), { ips: ['10.0.0.9'] })
    assert.deepEqual(await passed({ ips: true, mac: true }, supplied), supplied)
  })

  for (const [id, key, value] of values)
    test(`${id} ${key} is passed as it is`, async () => {
      assert.deepEqual(await passed({ [key]: true }, { [key]: value }), { [key]: value })
    })
})

suite('CAP capabilities, host-local', { skip: missing }, () => {
  const environment = {
    CNI_COMMAND: 'ADD',
    CNI_CONTAINERID: 'c1',
    CNI_IFNAME: 'eth0',
    CNI_NETNS: pod(),
  }
  const add = async (more: object, args = '', ipam: object = {}) => {
    const config = {
      cniVersion: '1.0.0',
      name: 'n',
      type: 'host-local',
      ipam: { type: 'host-local', dataDir: folder('host-local'), ranges: [[{ subnet: '10.1.0.0/24' }]], ...ipam },
      ...more,
    }
    return resultOf(await plugin('host-local', { ...environment, CNI_ARGS: args }, config))
  }
  const addresses = (result: { ips: { address: string }[] }) => result.ips.map(each => each.address).sort()

  test('CAP-03 ipRanges come before the ranges of the configuration', async () => {
    const result = await add({ runtimeConfig: { ipRanges: [[{ subnet: '10.2.0.0/24' }]] } })
    assert.ok(addresses(result).includes('10.2.0.2/24'))
  })

  test('CAP-06 ips are taken with and without length', async () => {
    for (const ip of ['10.1.0.77', '10.1.0.77/24'])
      assert.deepEqual(addresses(await add({ runtimeConfig: { ips: [ip] } })), ['10.1.0.77/24'])
  })

  test('CAP-06 keys of runtimeConfig are read in any case, as containerd writes them', async () => {
    const result = await add({ RuntimeConfig: { IPs: ['10.1.0.78'] } })
    assert.deepEqual(addresses(result), ['10.1.0.78/24'])
  })

  test('CAP-09 args.cni is read, unknown keys in it are ignored', async () => {
    const result = await add({ args: { cni: { ips: ['10.1.0.79'], labels: [{ key: 'a', value: 'b' }], other: 1 } } })
    assert.deepEqual(addresses(result), ['10.1.0.79/24'])
  })

  test('CAP-10 addresses of all three sources are merged', async () => {
    const ranges = ['10.1.0.0/24', '10.2.0.0/24', '10.3.0.0/24'].map(subnet => [{ subnet }])
    const more = { runtimeConfig: { ips: ['10.1.0.50'] }, args: { cni: { ips: ['10.2.0.51'] } } }
    const result = await add(more, 'IP=10.3.0.52;IgnoreUnknown=1', { ranges })
    assert.deepEqual(addresses(result), ['10.1.0.50/24', '10.2.0.51/24', '10.3.0.52/24'])
  })
})
