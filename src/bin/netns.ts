// SPDX-License-Identifier: Apache-2.0

import { existsSync, readlinkSync } from 'node:fs'
import { linkNetns, listNetns, netnsPath, unlinkNetns } from '#host'
import { containerOf } from '#inspect'

/** As container tools print a container's id. */
const SHORT_ID = 12

/** Makes the namespace of a process visible to `ip netns`. @returns its name there */
export function nameNetns(pid: string, name: string | undefined): string {
  if (!/^\d+$/.test(pid) || !existsSync(`/proc/${pid}/ns/net`)) throw new Error(`Cannot find process ${pid}`)
  const wanted = name ?? containerOf(Number(pid))?.slice(0, SHORT_ID) ?? `pid-${pid}`
  if (!/^[^/]+$/.test(wanted) || wanted === '.' || wanted === '..')
    throw new Error(`Cannot give the name "${wanted}": it must have no slash`)
  try {
    linkNetns(wanted, Number(pid))
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code !== 'EEXIST') throw error
    throw new Error(`Cannot give the name ${wanted}: ${netnsPath(wanted)} is there already`, { cause: error })
  }
  return wanted
}

/** Takes back names that `nameNetns` gave: one, or all of a process. @returns them @throws {Error} where there is none */
export function forgetNetns(nameOrPid: string): string[] {
  const path = `/proc/${nameOrPid}/ns/net`
  const names = /^\d+$/.test(nameOrPid) ? listNetns('').filter(name => targetOf(name) === path) : []
  const removed = [nameOrPid, ...names].filter(name => !name.includes('/') && unlinkNetns(name))
  if (removed.length === 0)
    throw new Error(
      `Cannot remove ${nameOrPid}: \`mooring netns\` gave no such name. What \`ip netns\` made it removes`,
    )
  return removed
}

function targetOf(name: string): string | undefined {
  try {
    return readlinkSync(netnsPath(name))
  } catch {
    return undefined
  }
}
