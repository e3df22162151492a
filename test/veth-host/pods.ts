// SPDX-License-Identifier: Apache-2.0

// Pods with a macvlan or ipvlan of the node's NIC, as an earlier plugin of the chain would have made it, and a node that
// translates services as kube-proxy does.

import { spawnSync } from 'node:child_process'
import type { Station } from '../host/station.ts'
import { type Attachment, makeNetns, type Netns, type Node, run } from '../nodelab.ts'

export type Version = 'v4' | 'v6'
export const versions = ['v4', 'v6'] as const

export const GATEWAY = { v4: '10.10.10.1', v6: 'fd00:10::1' }
export const OUTSIDE = { v4: '192.0.2.2', v6: '2001:db8:ff::2' }
export const NODES = [
  { v4: '10.10.10.8', v6: 'fd00:10::8' },
  { v4: '10.10.10.9', v6: 'fd00:10::9' },
] as const
export const SERVICES = ['10.96.0.0/12', 'fd00:96::/108']

/** How the pod's own NIC is made. */
const kinds = { macvlan: 'type macvlan mode bridge', ipvlan: 'type ipvlan mode l2' } as const
export type Kind = keyof typeof kinds

/** Some kernels have no ipvlan; lab/vmlab's has. */
export const hasIpvlan: boolean =
  spawnSync('unshare', ['--net', 'sh', '-c', 'ip link add p0 type veth && ip link add link p0 name i0 type ipvlan'])
    .status === 0

let count = 0

export type Pod = {
  readonly netns: Netns
  readonly v4: string
  readonly v6: string
  readonly it: Attachment
  /** What the earlier plugin of the chain answered. */
  readonly prevResult: object
}

/** A pod with eth0, both families, not yet joined to its node. */
export function makePod(node: Node, families: readonly Version[] = versions, kind: Kind = 'macvlan'): Pod {
  const netns = makeNetns('pod')
  const last = 20 + count++
  const [v4, v6] = [`10.10.10.${last}`, `fd00:10::${last}`]
  run('ip', ['-n', node.name, ...`link add link eth0 name nic netns ${netns.name} ${kinds[kind]}`.split(' ')])
  // Older kernels want the name to be free where the link comes from, too.
  const commands = [
    'link set nic name eth0',
    'link set eth0 up',
    ...(families.includes('v4') ? [`addr add ${v4}/24 dev eth0`, `route add default via ${GATEWAY.v4}`] : []),
    ...(families.includes('v6') ? [`addr add ${v6}/64 dev eth0 nodad`, `route add default via ${GATEWAY.v6}`] : []),
  ]
  run('ip', ['-n', netns.name, '-batch', '-'], commands.join('\n'))
  const [{ address: mac }] = JSON.parse(netns.ip('-j link show eth0'))
  const prevResult = {
    cniVersion: '1.0.0',
    interfaces: [{ name: 'eth0', mac, sandbox: netns.path }],
    ips: [
      ...(families.includes('v4') ? [{ address: `${v4}/24`, gateway: GATEWAY.v4, interface: 0 }] : []),
      ...(families.includes('v6') ? [{ address: `${v6}/64`, gateway: GATEWAY.v6, interface: 0 }] : []),
    ],
    routes: [
      ...(families.includes('v4') ? [{ dst: '0.0.0.0/0' }] : []),
      ...(families.includes('v6') ? [{ dst: '::/0' }] : []),
    ],
  }
  return { netns, v4, v6, it: { containerId: `c${last}`, netns: netns.path, type: 'veth-host' }, prevResult }
}

/** A configuration of veth-host; both service networks. */
export const configOf = (more: object = {}) => ({
  cniVersion: '1.0.0',
  name: 'podnet',
  type: 'veth-host',
  serviceCidr: SERVICES,
  hostInterface: 'eth0',
  containerInterface: 'veth0',
  ipMasq: true,
  ...more,
})

export type Service = {
  readonly address: string
  readonly backend: string
  readonly nodePort?: number
  /** externalTrafficPolicy: the client keeps its address. */
  readonly local?: boolean
}

/** Port 80 of each service leads to port 7 of its backend, by rules like kube-proxy's in nftables mode. */
export function setServices(node: Netns, services: readonly Service[]): void {
  const rules = services.flatMap(({ address, backend, nodePort, local = false }) => {
    const ip = address.includes(':') ? 'ip6' : 'ip'
    const to = ip === 'ip' ? `${backend}:7` : `[${backend}]:7`
    return ['udp', 'tcp'].flatMap(protocol => [
      `${ip} saddr ${backend} ${ip} daddr ${address} meta mark set meta mark or 0x4000`,
      `${ip} daddr ${address} ${protocol} dport 80 dnat ${ip} to ${to}`,
      ...(nodePort === undefined
        ? []
        : [
            `meta nfproto ${ip === 'ip' ? 'ipv4' : 'ipv6'} fib daddr type local ${protocol} dport ${nodePort} ` +
              `${local ? '' : 'meta mark set meta mark or 0x4000 '}dnat ${ip} to ${to}`,
          ]),
    ])
  })
  const table = `
    table inet kube-proxy {}
    delete table inet kube-proxy
    table inet kube-proxy {
      chain services {
        ${rules.join('\n')}
      }
      chain prerouting { type nat hook prerouting priority dstnat; jump services; }
      chain output { type nat hook output priority -100; jump services; }
      chain postrouting {
        type nat hook postrouting priority srcnat
        meta mark & 0x4000 == 0 return
        meta mark set meta mark xor 0x4000
        masquerade fully-random
      }
      chain forward { type filter hook forward priority filter; ct state invalid drop; }
    }`
  run('nsenter', [`--net=${node.path}`, 'nft', '-f', '-'], table)
}

/** A pod that is joined to its node. */
export type Joined = Pod & { readonly station: Station; readonly result: object }
