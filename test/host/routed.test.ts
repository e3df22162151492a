// SPDX-License-Identifier: Apache-2.0
// Promise: what removes a pod touches nothing of another's. Method: the verbs themselves, in namespaces of their own. Needs root.
import assert from 'node:assert/strict'
import { closeSync } from 'node:fs'
import { after, before, describe, test } from 'node:test'
import { parsePrefix } from '#base'
import { type Host, HostContext, inlineHost, openOwnNetns } from '#host'
import { setNetworkNamespace, unshareNetwork } from '#libc'
import type { Transport } from '#netlink'
import { addLink, decodeLink, decodeNeighbour, dumpLinks, dumpProxies, getLink } from '#rtnetlink'

const skip = process.getuid?.() === 0 ? false : 'needs root'
const mac = (last: number) => Uint8Array.of(2, 0, 0, 0, 0, last)

describe('host verbs', { skip }, () => {
  let home: number
  let pod: number
  let context: HostContext
  let host: Host
  before(() => {
    home = openOwnNetns()
    unshareNetwork()
    pod = openOwnNetns()
    unshareNetwork()
    context = new HostContext()
    host = inlineHost(context)
  })
  after(() => {
    setNetworkNamespace(home)
    context[Symbol.dispose]()
    for (const fd of [home, pod]) closeSync(fd)
  })
  const makeVeth = (ifname: string, last: number) =>
    context.route.execute([
      addLink({ ifname, address: mac(last), linkinfo: { kind: 'veth', data: { peer: { ifname: `${ifname}p` } } } }),
    ])
  const links = () => context.route.execute([dumpLinks()])[0]!.messages.map(message => decodeLink(message).ifname)

  test('removeLinks() of several takes those alone: the group of all links is never removed', async () => {
    for (const [index, name] of ['keep', 'one', 'two', 'another'].entries()) makeVeth(name, index)
    await host.removeLinks({
      links: [
        { name: 'one', owner: 'x', mac: mac(1) },
        { name: 'two', owner: 'x', mac: mac(2) },
        { name: 'another', owner: 'x', mac: mac(9) }, // its name was taken by somebody else
        { name: 'gone', owner: 'x', mac: mac(4) },
      ],
    })
    assert.deepEqual(links().sort(), ['another', 'anotherp', 'keep', 'keepp', 'lo'])
  })

  test('both ends of a pair have one queue each way, however many processors there are', async () => {
    const addresses = [parsePrefix('10.9.0.60/24')]
    const names = { hostLink: 'vethq', owner: 'queues', ifName: 'eth7', netnsFd: pod }
    const ends = { mtuBytes: 1500, hostMac: mac(0x41), podMac: mac(0x42), addresses, nextHops: [], routes: [] }
    const firewall = { link: 'vethq', addresses: [addresses[0]!.ip] }
    await host.attachRoutedPod({ pod: { ...names, ...ends }, uplink: undefined, firewall })
    const queues = (route: Transport, ifname: string) => {
      const { txQueues, rxQueues } = decodeLink(route.execute([getLink({ ifname })])[0]!.messages[0]!)
      return [txQueues, rxQueues]
    }
    assert.deepEqual(queues(context.route, 'vethq'), [1, 1])
    assert.deepEqual(
      context.inNetns(pod, route => queues(route, 'eth7')),
      [1, 1],
    )
  })

  test('a late DEL leaves the proxy entry of the pod that has the address now', async () => {
    makeVeth('uplink', 0x20)
    const uplink = (await host.findUplink({ name: 'uplink' }))!
    const addresses = [parsePrefix('10.9.0.50/24')]
    const attached = {
      hostLink: 'vethnew',
      owner: 'new',
      ifName: 'eth0',
      netnsFd: pod,
      mtuBytes: 1500,
      hostMac: mac(0x31),
      podMac: mac(0x32),
      addresses,
      nextHops: [],
      routes: [],
    }
    await host.attachRoutedPod({ pod: attached, uplink, firewall: { link: 'vethnew', addresses: [addresses[0]!.ip] } })
    const proxies = () =>
      context.route.execute([dumpProxies(2)])[0]!.messages.map(message => decodeNeighbour(message).index)
    const detach = (hostLink: string) =>
      host.detachRoutedPod({
        traces: { hostLink, addresses, uplinkIndex: uplink.index },
        firewall: { link: hostLink, addresses: [addresses[0]!.ip] },
      })
    await detach('vethold')
    assert.deepEqual(proxies(), [uplink.index])
    await detach('vethnew')
    assert.deepEqual(proxies(), [])
  })
})
