// SPDX-License-Identifier: Apache-2.0

// What CHECK has to find of a veth pair, whichever plugin made it: what it is, the fault, and how it comes about.

import type { Netns } from './nodelab.ts'

export type PairDamage = readonly [what: string, fault: RegExp, damage: (pod: Netns, host: string) => void]

/** @param node the node's namespace, once the suite has begun */
export const pairDamages = (node: () => Netns): readonly PairDamage[] => [
  ['the interface is gone (CHK-04)', /link eth0 in the pod is missing/, pod => pod.ip('link del eth0')],
  [
    'the interface is renamed (CHK-04)',
    /link eth0 in the pod is missing/,
    pod => {
      pod.ip('link set eth0 down')
      pod.ip('link set eth0 name eth9')
    },
  ],
  ['the interface is down (CHK-12)', /link eth0 in the pod is down/, pod => pod.ip('link set eth0 down')],
  [
    "the node's end is down (CHK-12)",
    /link veth[0-9a-f]{8} on the node is down/,
    (_, host) => node().ip(`link set ${host} down`),
  ],
  [
    'the MAC is another (CHK-07)',
    /eth0 in the pod has MAC 02:00:00:00:00:99/,
    pod => pod.ip('link set eth0 address 02:00:00:00:00:99'),
  ],
  [
    "the MAC of the node's end is another",
    /link veth[0-9a-f]{8} on the node has MAC 02:00:00:00:00:98/,
    (_, host) => node().ip(`link set ${host} address 02:00:00:00:00:98`),
  ],
  ['the MTU is another', /link eth0 in the pod has MTU 1400, not 1500/, pod => pod.ip('link set eth0 mtu 1400')],
  [
    "the MTU of the node's end is another",
    /link veth[0-9a-f]{8} on the node has MTU 1400, not 1500/,
    (_, host) => node().ip(`link set ${host} mtu 1400`),
  ],
]
