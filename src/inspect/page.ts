// SPDX-License-Identifier: Apache-2.0

import type { SurveyLink, SurveyRoute } from '#host'
import type { Report, ReportAttachment } from './report.ts'

const TABLE_MAIN = 254

/** A report on one page. What differs from the journal stands behind a `!`. */
export function formatReport({ netns, inode, container, node, attachments }: Report): string[] {
  return [
    `namespace ${netns}${inode === null ? ', which is gone' : ` (net:[${inode}])`}`,
    ...section('attachments', attachments.flatMap(attachmentLines)),
    ...(container === null
      ? []
      : [
          ...section('links in the container', container.links.map(linkLine)),
          ...section('routes in the container', container.routes.map(routeLine)),
          ...section(
            'rules',
            container.rules.map(({ text }) => text),
          ),
        ]),
    ...section('links on the node', node.links.map(linkLine)),
    ...section('routes on the node', node.routes.map(routeLine)),
    ...section(
      'rules',
      node.rules.map(({ text }) => text),
    ),
    ...section(
      'answers ARP and neighbour discovery for',
      node.proxies.map(({ address, link }) => `${address} on ${link}`),
    ),
    ...section('nf_tables', node.elements),
  ]
}

const section = (title: string, lines: readonly string[]): string[] =>
  lines.length === 0 ? [] : ['', title, ...lines.map(line => (line.startsWith('!') ? line : `  ${line}`))]

const attachmentLines = ({ network, containerId, ifName, type, state, pod, faults }: ReportAttachment): string[] => [
  `${ifName} of ${pod ?? containerId} in network ${network}: ${type}, ${state}`,
  ...faults.map(fault => `! ${fault}`),
]

function linkLine({
  name,
  index,
  kind,
  mac,
  mtuBytes,
  isUp,
  hasCarrier,
  alias,
  master,
  addresses,
}: SurveyLink): string {
  const parts = [
    `${index}: ${name}`,
    isUp ? (hasCarrier ? 'up' : 'up, no carrier') : 'down',
    ...(kind === null ? [] : [kind]),
    `mtu ${mtuBytes}`,
    ...(mac === '' ? [] : [mac]),
    ...(master === null ? [] : [`port of ${master}`]),
    ...addresses,
    ...(alias === null ? [] : [`"${alias}"`]),
  ]
  return parts.join('  ')
}

const routeLine = ({ text, table }: SurveyRoute): string => (table === TABLE_MAIN ? text : `${text} table ${table}`)
