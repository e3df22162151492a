// SPDX-License-Identifier: Apache-2.0

// What CHECK has to find of a veth pair, whichever plugin made it: what it is, the fault, how it comes about, and what has to
// be put right before DEL, which would leave another's link alone, and cannot know of the node's own settings.

import type { Netns } from './nodelab.ts'

type Change = (pod: Netns, host: string) => void
export type PairDamage = readonly [what: string, fault: RegExp, damage: Change, repair?: Change]

/** The pod's first IPv4 address on eth0, with its prefix length. */
function addressOf(pod: Netns): string {
  const [{ addr_info: addresses }] = JSON.parse(pod.ip('-j -4 addr show dev eth0'))
  return `${addresses[0].local}/${addresses[0].prefixlen}`
}

/** What the damaged link's alias was. */
let owner = ''

/** What can become of an address that is there still. */
export const addressDamages: readonly PairDamage[] = [
  [
    'the address expires',
    /address \S+ on eth0 expires in \d+ s/,
    pod => pod.ip(`addr change ${addressOf(pod)} dev eth0 valid_lft 3600 preferred_lft 3600`),
  ],
  [
    'the address is deprecated',
    /address \S+ on eth0 is deprecated\b(?! in)/,
    pod => pod.ip(`addr change ${addressOf(pod)} dev eth0 preferred_lft 0`),
  ],
  [
    'the address has another scope',
    /address \S+ on eth0 has scope link, not global/,
    pod => {
      const address = addressOf(pod)
      pod.ip(`addr del ${address} dev eth0`)
      pod.ip(`addr add ${address} dev eth0 scope link`)
    },
  ],
]

/** What can become of the default route, which leads where it did still. */
export const routeDamages: readonly PairDamage[] = (
  [
    ['another metric', 'metric 100', 'has metric 100, not 0'],
    ['an MTU', 'mtu 1300', 'has MTU 1300, not none'],
    ['a maximum segment size', 'advmss 1000', 'has advertised MSS 1000, not none'],
    ['a source that the attachment does not have', 'src 10.77.0.1', 'has source 10.77.0.1, not none'],
  ] as const
).map(([what, how, fault]) => [
  `the default route has ${what}`,
  new RegExp(`route 0\\.0\\.0\\.0/0 via \\S+ dev eth0 in the pod ${fault.replaceAll('.', '\\.')}`),
  pod => {
    const [{ gateway }] = JSON.parse(pod.ip('-j route show default'))
    if (how.startsWith('src')) pod.ip('addr add 10.77.0.1/32 dev eth0')
    pod.ip('route del default')
    pod.ip(`route add default via ${gateway} dev eth0 ${how}`)
  },
])

/** What ADD sets of a link with addresses. */
export const settingDamages: readonly PairDamage[] = [
  [
    'nobody would be told of a new MAC',
    /net\.ipv4\.conf\.eth0\.arp_notify is off in the pod/,
    pod => pod.run('sysctl', '-qw', 'net.ipv4.conf.eth0.arp_notify=0'),
  ],
  [
    'the address has no broadcast address',
    /address \S+ on eth0 has no broadcast address, not /,
    pod => {
      const address = addressOf(pod)
      pod.ip(`addr del ${address} dev eth0`)
      pod.ip(`addr add ${address} dev eth0`)
    },
  ],
]

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
  [
    "the alias of the node's end is another",
    /link veth[0-9a-f]{8} on the node is not of this attachment: its alias is "other"/,
    (_, host) => {
      const [{ ifalias }] = JSON.parse(node().ip(`-j link show ${host}`))
      owner = ifalias
      node().ip(`link set ${host} alias other`)
    },
    (_, host) => node().run('ip', 'link', 'set', host, 'alias', owner),
  ],
  ...addressDamages,
  [
    'the address brings a route to its network',
    /address \S+ on eth0 brings a route to its network/,
    pod => {
      const address = addressOf(pod)
      pod.ip(`addr del ${address} dev eth0`)
      pod.ip(`addr add ${address} dev eth0`)
    },
  ],
  ...routeDamages,
  ...(
    [
      [
        'leads to a router',
        'via 10.10.10.1 onlink',
        /route 10\.\d+\.\d+\.\d+ dev veth[0-9a-f]{8} is missing on the node/,
      ],
      [
        'leads to a neighbour',
        'via inet6 fe80::99 onlink',
        /route 10\.\d+\.\d+\.\d+ dev veth[0-9a-f]{8} is missing on the node/,
      ],
      ['has a source', 'src 10.10.10.8', / on the node has source 10\.10\.10\.8, not none/],
      ['has a metric', 'metric 7', / on the node has metric 7, not 0/],
      ['has another scope', 'scope link', / on the node has scope link, not global/],
      ['has an MTU', 'mtu 1300', / on the node has MTU 1300, not none/],
    ] as const
  ).map(
    ([what, how, fault]): PairDamage => [
      `the host route ${what}`,
      fault,
      (pod, host) => {
        const [address] = addressOf(pod).split('/')
        node().ip(`route del ${address} dev ${host}`)
        node().ip(`route add ${address} dev ${host} proto 98${how.startsWith('scope') ? '' : ' scope global'} ${how}`)
      },
    ],
  ),
]
