// SPDX-License-Identifier: Apache-2.0
// The way that packets of pods take between the nodes, told by counters of the kernel and not by its routes.
import { run, type Worker } from './labs.ts'

const TABLE = 'mooring_kubelet_test'
/** The NIC of the server's Neutron port; the other link of a node is that of the Kubernetes lab. */
const UPLINK = 'eth0'
/** The tenant network of the OpenStack lab. */
const NETWORK = '10.10.10.0/24'

export interface UplinkCount {
  readonly node: string
  /** Connections by the NIC, out of the node and into it. */
  readonly out: number
  readonly into: number
  /** Packets of pods on the Kubernetes lab's link; they were dropped. */
  readonly elsewhere: number
}

/** Counts connections of pods to `port` on the nodes, and drops what takes another way than the Neutron NIC. */
export function countUplink(nodes: readonly Worker[], port: number): Disposable & { read(): UplinkCount[] } {
  const nft = (node: Worker, args: readonly string[], input?: string) =>
    run('ip', ['netns', 'exec', node.name, 'nft', ...args], input)
  const syn = `ip saddr ${NETWORK} ip daddr ${NETWORK} tcp dport ${port} tcp flags & (syn | ack) == syn`
  const rules = `table ip ${TABLE} {
    counter out {}
    counter into {}
    counter elsewhere {}
    chain prerouting {
      type filter hook prerouting priority raw
      iifname ${UPLINK} ${syn} counter name into
      iifname klab0 ip saddr ${NETWORK} counter name elsewhere drop
    }
    chain postrouting {
      type filter hook postrouting priority filter
      oifname ${UPLINK} ${syn} counter name out
      oifname klab0 ip daddr ${NETWORK} counter name elsewhere drop
    }
  }`
  for (const node of nodes) nft(node, ['--file', '-'], rules)
  const count = (node: Worker, counter: string): number => {
    const { nftables } = JSON.parse(nft(node, ['--json', 'list', 'counter', 'ip', TABLE, counter]))
    return nftables.find((each: { counter?: { packets: number } }) => each.counter !== undefined).counter.packets
  }
  return {
    read: () =>
      nodes.map(node => ({
        node: node.name,
        out: count(node, 'out'),
        into: count(node, 'into'),
        elsewhere: count(node, 'elsewhere'),
      })),
    [Symbol.dispose]() {
      for (const node of nodes) nft(node, ['delete', 'table', 'ip', TABLE])
    },
  }
}
