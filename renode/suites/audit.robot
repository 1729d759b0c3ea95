# SPDX-License-Identifier: Apache-2.0
*** Settings ***
Suite Setup         Setup
Suite Teardown      Teardown
Test Setup          Reset Emulation
Test Teardown       Run Keywords    Test Teardown    AND    Forget Device
Resource            ${RENODEKEYWORDS}
Resource            ${CURDIR}/monitor.resource


*** Test Cases ***
HW-T13 The Log Survives A Loss Of Power
    Start A Device
    Obtain Lease
    Gate Is Open
    ${before}=    Read Log
    Log Must Name    ${before}    LOG_CREATED    BOOT    LEASE_ISSUED
    Execute Command    machine Reset
    Wait Until It Serves
    Gate Is Closed
    ${after}=    Read Log
    Log Must Grow    ${before}    ${after}
    Log Must Be Whole    ${after}
    Log Must Name    ${after}    LEASE_ISSUED    BOOT

HW-T14 Tampering With The Log Shows
    Start A Device
    Obtain Lease
    ${log}=    Read Log
    Log Must Be Whole    ${log}
    Tampering Must Show    ${log}

HW-T15 The Log Can Be Read Out
    Start A Device    duration=10000
    Obtain Lease
    Gate Is Open
    Gate Closes    12
    Failsafe Rises
    Run For    1
    ${log}=    Read Log
    Log Must Be Whole    ${log}
    Log Must Name    ${log}    LOG_CREATED    BOOT    VALIDATOR_QUERY    LEASE_ISSUED    LEASE_EXPIRED    FAILSAFE_TRIGGERED    CONTAINMENT
