// SPDX-License-Identifier: Apache-2.0

import { formatIp, type Ip } from '#base'
import { type Transport, u32 } from '#netlink'
import {
  addSet,
  addTable,
  commit,
  compare,
  type ElementOf,
  type Expression,
  forward,
  hasElements,
  isIn,
  listElements,
  listSets,
  loadField,
  loadMeta,
  loadValue,
  type NamedSet,
  storeField,
  type Table,
} from '#nftables'
import { partFaults } from './chain-faults.ts'
import { giveBackElements, takeElements } from './elements.ts'
import { addressTypes, ipVersions, perVersion, versionOf } from './match.ts'
import { ensureParts, type Part } from './part.ts'

// A link of ipvlan in mode l3 does not speak ARP nor neighbour discovery, and its master hands every question for its
// address to it: nobody would answer. So a rule where packets come in to the master makes each such question its own answer
// and sends it back. It is in the kernel: it needs no agent, no time, and none of the neighbours' habits with announcements.

/** Chains of this family see packets before the master's links do. */
const table: Table = { family: 'netdev', name: 'mooring' }
/** For whom is answered: the master's name, and the address. */
const sets = perVersion(
  (version): NamedSet => ({
    table,
    name: `silent_pods_${version}`,
    key: ['ifname', addressTypes[version]],
  }),
)

/** A link on which is answered for others. */
export type Answering = { readonly name: string; readonly index: number; readonly mac: Uint8Array }

/** Registers 1 to 4 hold 16 bytes each and follow one another: a link's name fills the first, the address comes next. */
const [WORK, TARGET, SENDER, OWN] = [1, 2, 3, 4] as const
const ETH_P_ARP = Uint8Array.of(0x08, 0x06)
const ETH_P_IPV6 = Uint8Array.of(0x86, 0xdd)

/** RFC 826: a question for IPv4 on Ethernet. */
const arpRequest = Uint8Array.of(0, 1, 8, 0, 6, 4, 0, 1)
const arpReply = Uint8Array.of(0, 2)
const answerToArp = (mac: Uint8Array): Expression[] => [
  loadMeta('protocol', WORK),
  compare(WORK, '==', ETH_P_ARP),
  loadField('arp header', WORK),
  compare(WORK, '==', arpRequest),
  loadMeta('iifname', WORK),
  loadField('arp daddr ip', TARGET),
  isIn(WORK, sets.v4.name),
  // Who asked becomes who is told, and what was asked for becomes who tells.
  loadField('arp sender', SENDER),
  loadValue(OWN, mac),
  storeField('arp target', SENDER),
  storeField('arp saddr ip', TARGET),
  storeField('arp saddr ether', OWN),
  loadValue(WORK, arpReply),
  storeField('arp operation', WORK),
]

/** RFC 4861, section 4.3: ICMPv6 of 32 bytes is a question with the MAC of who asks. That of duplicate detection has none. */
const withMac = Uint8Array.of(0, 32, 58)
const solicitation = Uint8Array.of(135, 0)
const advertisement = Uint8Array.of(136, 0)
const sourceMac = Uint8Array.of(1, 1)
const targetMac = Uint8Array.of(2, 1)
/** Asked for, and to replace what was known. */
const solicitedOverride = Uint8Array.of(0x60, 0, 0, 0)
const answerToSolicitation = (mac: Uint8Array): Expression[] => [
  loadMeta('protocol', WORK),
  compare(WORK, '==', ETH_P_IPV6),
  loadField('ip6 length nexthdr', WORK),
  compare(WORK, '==', withMac),
  loadField('nd type code', WORK),
  compare(WORK, '==', solicitation),
  loadField('nd option', WORK),
  compare(WORK, '==', sourceMac),
  loadMeta('iifname', WORK),
  loadField('nd target', TARGET),
  isIn(WORK, sets.v6.name),
  loadField('ip6 saddr', SENDER),
  loadValue(OWN, mac),
  storeField('ip6 daddr', SENDER, 'pseudoHeader'),
  storeField('ip6 saddr', TARGET, 'pseudoHeader'),
  ...(
    [
      ['nd type code', advertisement],
      ['nd flags', solicitedOverride],
      ['nd option', targetMac],
    ] as const
  ).flatMap(([field, value]) => [loadValue(WORK, value), storeField(field, WORK, 'icmpv6')]),
  storeField('nd option ether', OWN, 'icmpv6'),
]

/** Back to where it came from, out of the same link. */
const sendBack = (index: number): Expression[] => [
  loadField('ether saddr', WORK),
  storeField('ether daddr', WORK),
  storeField('ether saddr', OWN),
  loadValue(WORK, u32.encode(index)),
  forward(WORK),
]

const partOf = ({ name, index, mac }: Answering): Part => ({
  sets: [sets.v4, sets.v6],
  chains: [
    {
      chain: {
        table,
        name: `answer_${name}`,
        base: { type: 'filter', hook: 'ingress', device: name, priority: 0, policy: 'accept' },
      },
      rules: [answerToArp(mac), answerToSolicitation(mac)].map(answer => ({
        expressions: [...answer, ...sendBack(index)],
        comment: 'answers for containers whose links are silent',
      })),
    },
  ],
})

/** Addresses for which a link answers. `owner` names the attachment. */
export type Answers = { readonly link: string; readonly owner: string; readonly addresses: readonly Ip[] }

const elementsOf = ({ link, owner, addresses }: Answers): ElementOf[] =>
  addresses.map(ip => ({ set: sets[versionOf(ip)], element: { key: [link, ip], comment: owner } }))

/**
 * Answers on a link for addresses that others on it have. What is there already stays.
 * @returns true where rules had to be made, so that the answers for others may be missing: add them again
 * @throws {NftablesError}
 */
export function answerFor(transport: Transport, link: Answering, answers: Omit<Answers, 'link'>): boolean {
  const elements = elementsOf({ ...answers, link: link.name })
  if (elements.length === 0) return false
  const renewed = ensureParts(transport, { parts: [partOf(link)] })
  takeElements(transport, elements)
  return renewed.length > 0
}

/** Ends what `answerFor` began. Absence is success, and an address that is another's by now is no matter. @throws {NetlinkError} */
export const stopAnswering = (transport: Transport, answers: Answers): void =>
  giveBackElements(transport, elementsOf(answers))

/** What is answered for an attachment, found by its name alone: for the rare DEL that nothing is known of. */
export function findAnswers(transport: Transport, owner: string): Answers[] {
  const found = ipVersions
    .flatMap(version => listElements(transport, sets[version], { mentioning: [owner] }) ?? [])
    .filter(({ comment }) => comment === owner)
  return found.map(({ key: [link, ip] }) => ({ link: String(link), owner, addresses: [ip as Ip] }))
}

/** The differences between what is answered and what should be, in words. */
export function findAnswerFaults(transport: Transport, link: Answering, answers: Omit<Answers, 'link'>): string[] {
  const elements = elementsOf({ ...answers, link: link.name })
  if (elements.length === 0) return []
  const faults = partFaults(transport, partOf(link))
  if (faults.length > 0) return faults
  const missing = hasElements(transport, elements)
    .map((has, position) => (has ? undefined : elements[position]!.element.key[1]))
    .filter(ip => ip !== undefined)
  return missing.map(ip => `nobody answers for ${formatIp(ip as Ip)} on ${link.name}`)
}

/** @returns true where a set had to be made, so that whatever was in it is missing */
export function ensureAnswers(transport: Transport): boolean {
  const present = listSets(transport, table)
  const missing = ipVersions.map(version => sets[version]).filter(({ name }) => !present.includes(name))
  if (missing.length === 0) return false
  commit(transport, [addTable(table), ...missing.map(set => addSet(set))])
  return true
}
