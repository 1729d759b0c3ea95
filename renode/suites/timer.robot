# SPDX-License-Identifier: Apache-2.0
*** Settings ***
Suite Setup         Setup
Suite Teardown      Teardown
Test Setup          Reset Emulation
Test Teardown       Run Keywords    Test Teardown    AND    Forget Device
Resource            ${RENODEKEYWORDS}
Resource            ${CURDIR}/monitor.resource


*** Keywords ***
Elapsed
    [Documentation]    Virtual seconds, as the emulator counts them.
    ${text}=    Execute Command    machine GetTimeSourceInfo
    ${clock}=    Evaluate    re.search(r"Elapsed Virtual Time: ([\\d:.]+)", $text)[1].split(":")    modules=re
    ${seconds}=    Evaluate    int($clock[0]) * 3600 + int($clock[1]) * 60 + float($clock[2])
    RETURN    ${seconds}


*** Test Cases ***
HW-T7 The Timer Keeps Its Rate Within Five Percent
    Start A Device
    Obtain Lease
    Gate Is Open
    ${hz}=    Word    ${COUNTER_HZ}
    Run For    0.2    # the lease wrote one between two ticks
    ${value}=    Word    ${DEADLINE}
    ${seen}=    Create List    ${value}
    ${from}=    Elapsed    # what is seen from here on is behind the value above, however long the first run takes
    FOR    ${look}    IN RANGE    120
        Run For    0.02
        ${value}=    Word    ${DEADLINE}
        Append To List    ${seen}    ${value}
    END
    ${to}=    Elapsed
    ${seconds}=    Evaluate    $to - $from
    Periods Must Be    ${seen}    ${hz}    0.1    ${seconds}

HW-T8 The End Of A Lease Is Seen Within One Period
    Start A Device    duration=10000
    Obtain Lease
    Gate Is Open
    Gate Closes    12
    Expiry Must Be Seen Within    100

HW-T9 The Timer Preempts A Payload That Never Yields
    Start A Device    duration=10000    attack=${ATTACK_SPIN}
    Obtain Lease
    Gate Is Open
    Run For    1
    ${batches}=    Told By The Payload    batches
    Run For    0.5
    ${now}=    Told By The Payload    batches
    Should Be Equal    ${now}    ${batches}    it still works: no attack
    Status Is    phase    ACTIVE
    Gate Closes    12
    Failsafe Rises
    Run For    0.5
    Status Is    contained    True
    Expiry Must Be Seen Within    100
    Payload Must Stop Within    10
