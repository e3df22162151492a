// SPDX-License-Identifier: Apache-2.0

import type { Attachment } from '#allocator'
import { formatIp, parseIp, tryParsePrefix } from '#base'
import type { Host, Survey, SurveyLink } from '#host'
import { callOf, findFaultsOf, type World } from '#plugins'
import { podOf } from './pod.ts'
import type { Target } from './target.ts'

/** All that there is of a container's network, on both sides, and what differs from what the journal says. */
export type Report = {
  readonly netns: string
  readonly inode: number | null
  /** Null where the namespace is gone. */
  readonly container: Pick<Survey, 'links' | 'routes' | 'rules'> | null
  readonly node: Survey & {
    /** Elements of the nf_tables table `inet mooring`. */
    readonly elements: string[]
  }
  readonly attachments: ReportAttachment[]
}

export type ReportAttachment = Pick<Attachment, 'network' | 'containerId' | 'ifName' | 'type' | 'state'> & {
  readonly pod: string | null
  readonly faults: readonly string[]
}

/** True if something is not as it should be. */
export const hasFaults = ({ attachments }: Report): boolean => attachments.some(({ faults }) => faults.length > 0)

/** Looks at a container from both sides. `world` is undefined where nothing was ever recorded. */
export async function inspectTarget(target: Target, host: Host, world: World | undefined): Promise<Report> {
  const { netnsFd, attachments } = target
  const container = netnsFd === undefined ? undefined : await host.surveyNetns({ netnsFd })
  return {
    netns: target.path,
    inode: target.identity?.inode ?? null,
    container: container === undefined ? null : withoutDefaults(container),
    node: await nodeSide(host, container, attachments),
    attachments: await Promise.all(attachments.map(each => reportOf(each, target, world))),
  }
}

/** The rules that every namespace has. */
const withoutDefaults = ({ links, routes, rules }: Survey): NonNullable<Report['container']> => ({
  links,
  routes,
  rules: rules.filter(
    ({ text }) => !/^(0: .* lookup local|32766: .* lookup main|32767: .* lookup default)$/.test(text),
  ),
})

async function reportOf(attachment: Attachment, target: Target, world: World | undefined): Promise<ReportAttachment> {
  const { network, containerId, ifName, type, state } = attachment
  const pod = podOf(attachment)
  return {
    ...{ network, containerId, ifName, type, state },
    pod: pod === undefined ? null : `${pod.namespace}/${pod.name}`,
    faults: await faultsOf(attachment, target, world),
  }
}

async function faultsOf(
  attachment: Attachment,
  { netnsFd, path }: Target,
  world: World | undefined,
): Promise<readonly string[]> {
  if (netnsFd === undefined) return [`its namespace ${path} is gone`]
  if (attachment.state !== 'ready')
    return [attachment.state === 'adding' ? 'its ADD is not finished' : 'its DEL is not finished']
  if (world === undefined || attachment.result === '') return []
  const call = callOf(attachment, 'CHECK')
  const prevResult = JSON.parse(attachment.result)
  try {
    return await findFaultsOf(attachment.type, { ...call, netns: attachment.netns, netnsFd, prevResult }, world)
  } catch (error) {
    return [error instanceof Error ? error.message : String(error)]
  }
}

/** What of the node belongs to the container: by its links, by its addresses, and by what the journal names. */
async function nodeSide(
  host: Host,
  container: Survey | undefined,
  attachments: readonly Attachment[],
): Promise<Report['node']> {
  const node = await host.surveyNetns({})
  const inside = container?.links.filter(({ kind, name }) => kind !== null || name !== 'lo') ?? []
  const named = attachments.flatMap(hostLinksOf)
  const links = node.links.filter(link => inside.some(each => isOtherEnd(link, each)) || named.includes(link.name))
  // The parent of a macvlan has routes of its own.
  const own = links.filter(({ kind, name }) => kind === 'veth' || named.includes(name)).map(({ name }) => name)
  const addresses = addressesOf(inside, attachments)
  const routes = node.routes.filter(
    route => route.links.some(link => own.includes(link)) || addresses.includes(route.destination),
  )
  return {
    links,
    routes,
    rules: node.rules.filter(
      rule => rule.links.some(link => own.includes(link)) || rule.prefixes.some(each => addresses.includes(each)),
    ),
    proxies: node.proxies.filter(({ address }) => addresses.includes(address)),
    elements: await host.findElements({ links: own, addresses: addresses.map(parseIp) }),
  }
}

/** The peer of a veth, or the parent of a link that is made on one. */
const isOtherEnd = (link: SurveyLink, inside: SurveyLink): boolean =>
  inside.peerIndex === link.index && (inside.kind !== 'veth' || link.peerIndex === inside.index)

const hostLinksOf = ({ traces }: Attachment): string[] => {
  const { hostLink } = (JSON.parse(traces) ?? {}) as { hostLink?: unknown }
  return typeof hostLink === 'string' ? [hostLink] : []
}

/** The container's own, as single addresses; where it is gone those of its results. */
function addressesOf(inside: readonly SurveyLink[], attachments: readonly Attachment[]): string[] {
  const recorded = attachments.flatMap(({ result }) => {
    const { ips = [] } = result === '' ? {} : (JSON.parse(result) as { ips?: { address: string }[] })
    return ips.map(({ address }) => address)
  })
  const found = [...inside.flatMap(link => link.addresses), ...recorded].flatMap(address => {
    const prefix = tryParsePrefix(address)
    return prefix === undefined ? [] : formatIp(prefix.ip)
  })
  return [...new Set(found)].filter(address => !address.startsWith('fe80:'))
}
